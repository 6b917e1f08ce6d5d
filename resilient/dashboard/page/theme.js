/* Light, dark, or as the system has it. */

import { byId, write } from "./elements.js";

const ORDER = ["auto", "dark", "light"];
const KEY = "resilient-theme";

export function startTheme() {
  let theme = stored();
  const word = byId("theme-word");
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    write(word, theme);
  };
  byId("theme").addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Storage is closed to the page: the choice holds until it is left.
    }
    apply();
  });
  apply();
}

function stored() {
  try {
    const theme = localStorage.getItem(KEY);
    return ORDER.includes(theme) ? theme : "auto";
  } catch {
    return "auto";
  }
}
