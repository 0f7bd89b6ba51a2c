// Light or dark before the first paint: a plain script, not a module, so that nothing flashes.
// The choice is "auto" (what the system prefers), "light" or "dark", kept in localStorage where the browser allows it.

(() => {
  const KEY = "phi4mini.theme";
  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  let choice = "auto";
  try {
    choice = localStorage.getItem(KEY) ?? "auto";
  } catch {
    // a browser without storage follows the system
  }

  function apply() {
    if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
    else delete document.documentElement.dataset.theme;
  }

  apply();
  window.theme = {
    get choice() {
      return choice;
    },
    /** auto -> light -> dark -> auto; returns the new choice. */
    next() {
      choice = NEXT[choice] ?? "auto";
      try {
        localStorage.setItem(KEY, choice);
      } catch {
        // it holds until the page is closed
      }
      apply();
      return choice;
    },
  };
})();
