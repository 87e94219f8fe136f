import "@hotwired/turbo";

export default ({ url }, report) => {
  document.addEventListener("turbo:before-stream-render", ({ detail }) => report({ data: detail.newStream.templateElement.innerHTML }));
  document.body.innerHTML = `<ol id="list"></ol><turbo-stream-source src="${url}"></turbo-stream-source>`;
  const { streamSource } = document.querySelector("turbo-stream-source");
  streamSource.addEventListener("error", () => report(streamSource.readyState === 2 ? { end: true } : { cut: true }));
};
