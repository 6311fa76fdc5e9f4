// Renders the Markdown of answers as elements. The text is not trusted: nothing in it may run or load anything, and each
// link shows where it leads.
//
// - HTML in the text is shown as text, and images as links (see `marked` below);
// - the parser's HTML is sanitized: only TAGS and ATTRIBUTES are left;
// - links lead to http, https and mailto only, and show the host that they lead to.

import { highlight } from "./highlight.js";
import { isCostly } from "./markdown-cost.js";
import { Marked } from "./vendor/marked.js";
import sanitizer from "./vendor/purify.js";

const TAGS = [
  "a", "blockquote", "br", "code", "del", "em", "h3", "hr", "li", "ol", "p", "pre", "span", "strong", "table", "tbody",
  "td", "th", "thead", "tr", "ul",
];
const ATTRIBUTES = ["align", "class", "href", "start"];
const CLASSES = /^(language-[\w+#.-]{1,40}|level-[1-6]|hljs-[\w-]{1,40}|(function|class|inherited|language)_)$/;
const PROTOCOLS = ["http:", "https:", "mailto:"];
// Invisible characters that change the direction of text: it is then read in another order than it is written.
const DIRECTIONS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  tokenizer: { html: () => undefined, tag: () => undefined },
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || "image")}</a>`,
    // Headings of an answer are below those of the page, whatever the model has counted from.
    heading({ tokens, depth }) {
      return `<h3 class="level-${depth}">${this.parser.parseInline(tokens)}</h3>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

sanitizer.addHook("afterSanitizeAttributes", (element) => {
  const kept = [...element.classList].filter((name) => CLASSES.test(name));
  if (kept.length) element.className = kept.join(" ");
  else element.removeAttribute("class");
});

/** Turns HTML into elements without anything that could run, load, or be taken for a part of the page. */
export function sanitize(html) {
  return sanitizer.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
}

/** Returns a fragment with the elements of a text, or null if it is to be shown as it is. */
export function render(text) {
  if (isCostly(text)) return null;
  let content;
  try {
    content = sanitize(marked.parse(text));
  } catch {
    return null; // nested deeper than the parser can follow
  }
  content.querySelectorAll("a").forEach(showTarget);
  content.querySelectorAll("table").forEach((table) => letScroll(wrap(table, "table"), "Table"));
  content.querySelectorAll("pre").forEach(addCopyButton);
  return content;
}

/** Marks a link as foreign, and shows its host if its text does not begin with it. Others than PROTOCOLS become text. */
function showTarget(link) {
  const url = parseUrl(link.getAttribute("href"));
  if (!url || !PROTOCOLS.includes(url.protocol)) return link.replaceWith(...link.childNodes);
  link.rel = "noopener noreferrer nofollow";
  link.target = "_blank";
  const isMail = url.protocol === "mailto:";
  const shown = link.textContent.trim();
  const isNamed = isMail ? shown === url.pathname : !url.username && `${shown}/`.startsWith(`${url.origin}/`);
  if (isNamed && !DIRECTIONS.test(shown)) return;
  const host = document.createElement("span");
  host.className = "host";
  host.textContent = ` (${isMail ? url.pathname : url.host})`;
  link.append(host);
}

function parseUrl(href) {
  try {
    return new URL(href);
  } catch {
    return null; // relative links, too: a model does not know this page
  }
}

/** Puts an element into a box of a class. */
function wrap(element, name) {
  const box = document.createElement("div");
  box.className = name;
  element.replaceWith(box);
  box.append(element);
  return box;
}

/** Lets an element scroll sideways, also with the keyboard. */
function letScroll(element, label) {
  element.classList.add("wide");
  element.tabIndex = 0;
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
}

function addCopyButton(pre) {
  letScroll(pre, "Code");
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "quiet copy", textContent: "Copy" });
  button.setAttribute("aria-label", "Copy the code");
  button.dataset.copy = "";
  wrap(pre, "code").append(button);
}

/** Colours the code in an element, where its language is named. */
export async function colour(element) {
  for (const block of element.querySelectorAll("pre > code[class^=language-]")) {
    const html = await highlight(block.textContent, block.className.replace("language-", ""));
    if (html) block.replaceChildren(sanitize(html));
  }
}
