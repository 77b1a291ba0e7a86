// O: the lesion on and off. Left and right: the photo before and after. Not while something is typed or chosen.
(() => {
  const BUSY = "input:not([type=checkbox], [type=file]), textarea, select, [contenteditable], [role=listbox], [role=tab]";
  const shown = (element) => element && element.offsetParent !== null;

  function step(by) {
    const photos = [...document.querySelectorAll("#mtl-strip .thumbnail-item")];
    if (!shown(photos[0])) return false;
    const now = photos.findIndex((photo) => photo.classList.contains("selected"));
    const next = photos[Math.min(Math.max(now + by, 0), photos.length - 1)];
    if (next === photos[now]) return true; // a click on the chosen one would choose none
    next.click();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
    return true;
  }

  function toggle() {
    const overlay = document.querySelector("#mtl-overlay input");
    if (!shown(overlay)) return false;
    overlay.click();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(BUSY)) return;
    const actions = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), o: toggle, O: toggle };
    if (actions[event.key]?.()) event.preventDefault();
  });
})();
