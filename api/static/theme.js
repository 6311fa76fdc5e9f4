// Light or dark colours: the system's setting, until the user chooses with the button. The choice is stored.
(() => {
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
      button.querySelector(".sun").toggleAttribute("hidden", !isDark());
      button.querySelector(".moon").toggleAttribute("hidden", isDark());
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
