/** Reports what anything with the interface of an `EventSource` does. */
export function listen(source, { names }, report) {
  const event = ({ type, lastEventId, data }) => report({ event: type, id: lastEventId, data });
  source.addEventListener("open", () => report({ open: true }));
  for (const name of ["message", ...names]) source.addEventListener(name, event);
  source.addEventListener("error", ({ code, status, message }) =>
    report(source.readyState === 2 ? { end: true, error: String(message), status: code ?? status } : { cut: true }),
  );
}
