// Small helpers for the page. Text from the server always becomes a text node: no module parses it as markup.

export const $ = (selector, root = document) => root.querySelector(selector);

/** Makes an element. Strings among the children become text nodes. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Sets the text of an element, and leaves it alone if nothing changed: screen readers announce every write. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
