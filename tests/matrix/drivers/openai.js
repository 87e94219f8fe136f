import OpenAI from "openai";

export default async ({ base, token }, report) => {
  const client = new OpenAI({ baseURL: base, apiKey: token });
  const stream = await client.chat.completions.create({ model: "m", messages: [{ role: "user", content: "Say three words" }], stream: true });
  report({ open: true });
  for await (const { choices } of stream) if (choices[0].delta.content) report({ data: choices[0].delta.content });
  report({ end: true });
};
