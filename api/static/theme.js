// Light or dark colours: the system's setting, until the user chooses with the button. The choice is stored.
(() => {
  // What the button changes to: paths of 24 × 24.
  const SUN =
    "M12 7.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9" +
    "M12 2v2.5M12 19.5V22M2 12h2.5M19.5 12H22M5 5l1.7 1.7M17.3 17.3 19 19M19 5l-1.7 1.7M6.7 17.3 5 19";
  const MOON = "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z";

  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

  const choice = localStorage.getItem("theme");
  if (choice === "light" || choice === "dark") root.dataset.theme = choice;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      const name = isDark() ? "Light colours" : "Dark colours";
      button.title = name;
      button.setAttribute("aria-label", name);
      button.querySelector("path").setAttribute("d", isDark() ? SUN : MOON);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
