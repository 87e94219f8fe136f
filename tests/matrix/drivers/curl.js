import { spawn } from "node:child_process";

export default ({ url, method, body }, report) => {
  const child = spawn("curl", ["-NsS", "--fail", "--max-time", "20", "-X", method, ...(body ? ["-d", body] : []), url]);
  let rest = "", errors = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const values = (name) => block.split("\n").filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
      const event = { event: values("event")[0] ?? "message", id: values("id")[0], data: values("data").join("\n") };
      report(event);
    }
  });
  child.stderr.setEncoding("utf8").on("data", (text) => (errors += text));
  child.on("close", (code) => report({ end: true, ...(code ? { error: errors, status: Number(/error: (\d+)/.exec(errors)?.[1]) } : {}) }));
};
