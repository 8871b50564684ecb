// Keys: ? the list, / search, g b the board, j k rows, n N errors, f follow. None changes anything.

export function keys(viewer) {
  let before = "";
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.isComposing) return;
    const on = e.target;
    if (on.matches?.("input,textarea,select,[contenteditable]")) {
      if (e.key === "Escape") on.blur();
      return;
    }
    const pair = before + e.key;
    before = "";
    switch (e.key) {
      case "?": {
        const list = document.querySelector(".keys");
        if (list) { list.open = !list.open; list.scrollIntoView({ block: "nearest" }); }
        break;
      }
      case "/":
        document.getElementById("q")?.focus();
        break;
      case "g":
        before = "g";
        return;
      case "b":
        if (pair !== "gb") return;
        location.assign("/");
        break;
      case "j":
      case "k":
        row(e.key === "j" ? 1 : -1);
        break;
      case "n":
        viewer?.error(1);
        break;
      case "N":
        viewer?.error(-1);
        break;
      case "f":
        viewer?.follow();
        break;
      default:
        return;
    }
    e.preventDefault();
  });
}

function row(step) {
  const links = [...document.querySelectorAll(".row h3 a")];
  const at = links.findIndex((link) => link.closest(".row").contains(document.activeElement));
  const next = links[at < 0 && step < 0 ? links.length - 1 : at + step];
  next?.focus();
  next?.closest(".row").scrollIntoView({ block: "nearest" });
}
