// The worker of highlight.js: answers each message with the code in it as HTML, or with null if it does not know the language.

import library from "./vendor/highlight.js";

onmessage = ({ data: { code, language } }) => {
  const isKnown = library.getLanguage(language);
  postMessage(isKnown ? library.highlight(code, { language, ignoreIllegals: true }).value : null);
};
postMessage(null);
