// Texts that would keep the page busy for seconds are shown as they are.

import assert from "node:assert";
import { test } from "node:test";

import { isCostly } from "../../../api/static/markdown-cost.js";

const repeat = (text, length = 90_000) => text.repeat(length / text.length);

const COSTLY = {
  "a model that repeats an exclamation mark": repeat("!"),
  "a row of spaces": `a${repeat(" ")}b`,
  "emphasis in one paragraph": repeat("_a_"),
  "emphasis in many paragraphs": repeat("**a_", 2_400).concat("\n\n").repeat(30),
  "code that is not closed": repeat("`1."),
  "quotations in quotations": repeat("> "),
  "lists in lists": repeat("1. - "),
  "too much": "x".repeat(100_001),
};

const CHEAP = {
  "words": repeat("some words "),
  "a list": repeat("- **Name**: what it `is`\n\n"),
  "paragraphs": repeat("This *is* a paragraph with `code` in it, and more!\n".repeat(10).concat("\n")),
  "code": "```python\n".concat(repeat("    some_name = other_name  # !\n", 6_200), "```"),
  "a table": repeat("| a_b | `c` | **d** |\n", 8_360),
  "nested lists": Array.from({ length: 40 }, (_, depth) => `${"  ".repeat(depth)}- item\n`).join(""),
};

for (const [name, text] of Object.entries(COSTLY)) test(name, () => assert.ok(isCostly(text)));
for (const [name, text] of Object.entries(CHEAP)) test(name, () => assert.ok(!isCostly(text)));
