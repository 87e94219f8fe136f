import Anthropic from "@anthropic-ai/sdk";

export default async ({ base, token }, report) => {
  const client = new Anthropic({ baseURL: base, authToken: token, apiKey: null });
  const stream = await client.messages.create({ model: "m", max_tokens: 9, messages: [{ role: "user", content: "Say three words" }], stream: true });
  report({ open: true });
  for await (const event of stream) if (event.type === "content_block_delta") report({ data: event.delta.text });
  report({ end: true });
};
