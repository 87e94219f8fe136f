// Runs one driver in Node.js: node.mjs FILE TASK. Prints a line of JSON for each thing that the client does, and exits
// after `end`.

const [file, task] = process.argv.slice(2);
const alive = setInterval(() => {}, 1_000);
const report = (line) => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
  if (line.end) clearInterval(alive), setTimeout(process.exit, 50);
};
const { default: drive } = await import(new URL(file, import.meta.url));
try {
  await drive(JSON.parse(task), report);
} catch (error) {
  report({ end: true, error: String(error), status: error?.status ?? error?.statusCode ?? error?.response?.status });
}
