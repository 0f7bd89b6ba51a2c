// Elements from JavaScript, without a template language: el("button", {class: "quiet", onclick: f}, "Copy").
// Text stays text: nothing here parses HTML. It does not know what the page is about.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Functions become listeners; null, undefined and false are left out, true is an empty attribute. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (!isNothing(value)) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => !isNothing(child)));
  return element;
}

const isNothing = (value) => value === null || value === undefined || value === false;

/** The element of index.html with that id. */
export const byId = (id) => document.getElementById(id);

/** A symbol of icons.svg; decoration only, so the element that holds it needs a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/page/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows an icon and is named by its label. */
export function iconButton(name, label, onclick, more = {}) {
  const named = { type: "button", class: "icon-button", "aria-label": label, title: label };
  return el("button", { ...named, onclick, ...more }, icon(name));
}

/** 1234 -> "1,234". */
export const grouped = (number) => Math.round(number).toLocaleString("en");

/** Copies text and says so on the button for a moment; where copying is not allowed, the button says that. */
export async function copyText(text, button) {
  const before = button.getAttribute("aria-label");
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "The browser did not allow copying";
  }
  button.classList.toggle("done", said === "Copied");
  button.setAttribute("aria-label", said);
  button.title = said;
  setTimeout(() => {
    button.classList.remove("done");
    if (before === null) button.removeAttribute("aria-label");
    else button.setAttribute("aria-label", before);
    button.title = before ?? "";
  }, 1500);
}
