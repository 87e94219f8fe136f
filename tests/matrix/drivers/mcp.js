import { StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

export default async ({ url }, report) => {
  const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "words" } };
  /** Sends a message, and resolves at the end of its answer. */
  const send = (to, message) =>
    new Promise((done, fail) => {
      const transport = new StreamableHTTPClientTransport(new URL(to));
      transport.onerror = fail;
      transport.onmessage = ({ params, result, error }) => {
        if (error) report({ error: error.message });
        else report({ data: params?.data ?? result.text });
        if (to.includes("-json")) done();
      };
      const sent = transport.start().then(() => transport.send(message, { onRequestStreamEnd: done }));
      sent.then(() => to.includes("-accepted") && done(), fail);
    });
  await send(url, call);
  if (url.includes("-whole")) {
    await send(url.replace("-whole", "-json"), call);
    await send(url.replace("-whole", "-accepted"), { jsonrpc: "2.0", method: "notifications/initialized" });
    report({ data: "accepted" });
  }
  report({ end: true });
};
