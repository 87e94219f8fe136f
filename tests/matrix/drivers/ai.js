import { DefaultChatTransport } from "ai";

// What `useChat` does with an answer.
export default async ({ url }, report) => {
  const transport = new DefaultChatTransport({ api: url });
  const stream = await transport.sendMessages({ chatId: "c1", messages: [], trigger: "submit-message" });
  report({ open: true });
  for await (const { type, delta, errorText } of stream) {
    if (type === "text-delta") report({ data: delta });
    if (type === "error") report({ error: errorText });
  }
  report({ end: true });
};
