// Light or dark colours: what the user has chosen on the main page, or else the system's setting.
"use strict";

(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    const choice = localStorage.getItem("theme");
    document.documentElement.classList.toggle("dark-mode", choice === "dark" || (choice !== "light" && system.matches));
  };
  system.addEventListener("change", show);
  addEventListener("storage", show); // the choice in another tab
  show();
})();
