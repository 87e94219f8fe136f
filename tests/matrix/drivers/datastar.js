import { Datastar } from "@starfederation/datastar/dist/bundles/datastar.js";

export default ({ url }, report) => {
  document.addEventListener("datastar-sse", ({ detail: { type, argsRaw } }) => {
    if (type === "started") report({ open: true });
    else if (type === "finished") report({ end: true });
    else if (type === "error") report({ cut: true, status: Number(argsRaw.status) });
    else if (type === "datastar-merge-fragments") report({ data: /<b>(.*)<\/b>/s.exec(argsRaw.fragments)[1] });
    else report({ message: type });
  });
  document.body.innerHTML = `<div id="n">0</div><div data-on-load="sse('${url}')"></div>`;
  Datastar.apply(document.body);
};
