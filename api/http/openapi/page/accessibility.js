// Names for what Swagger UI leaves without one, for screen readers and keyboards, whenever it draws something.
"use strict";

const NAMES = [
  ["select#servers", "Server"],
  ["select.examples-select-element", "Example"],
  ["select.content-type", "Media type"],
  ["select", "Value"],
  ["textarea.body-param__text", "Request body"],
  [".copy-to-clipboard button, .curl-command button", "Copy"],
  ["button:empty", "Copy"],
];

function improve() {
  const page = document.getElementById("api");
  for (const [selector, name] of NAMES) {
    for (const element of page.querySelectorAll(`:is(${selector}):not([aria-label])`)) element.setAttribute("aria-label", name);
  }
  // A button must not contain a link; the button opens the operation.
  for (const link of page.querySelectorAll(".opblock-summary-control a[href]")) link.removeAttribute("href");
  // What scrolls must be reachable by keyboard.
  for (const block of page.querySelectorAll("pre:not([tabindex])")) block.tabIndex = 0;
  for (const table of page.querySelectorAll('table[role="region"]:not([aria-label])')) {
    const path = table.closest(".opblock").querySelector(".opblock-summary-path").dataset.path;
    const method = table.closest(".opblock").querySelector(".opblock-summary-method").textContent;
    table.setAttribute("aria-label", `Responses of ${method} ${path}`);
  }
  // The schemas are a section beside those of the operations.
  for (const heading of page.querySelectorAll(".models > h4:not([aria-level])")) heading.setAttribute("aria-level", "2");
}

new MutationObserver(improve).observe(document.getElementById("api"), { childList: true, subtree: true });
