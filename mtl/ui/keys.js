// O: the lesion on and off. Left and right: the photo before and after. + and -: zoom. Pasted photos are added.
(() => {
  const BUSY = "input:not([type=checkbox], [type=file]), textarea, table, .mtl-scroll, [role=grid], select, [contenteditable], [role=listbox], [role=tab]";
  const shown = (element) => element && element.offsetParent !== null;

  function step(by) {
    const photos = [...document.querySelectorAll("#mtl-strip button")];
    if (!shown(photos[0])) return false;
    const now = photos.findIndex((photo) => photo.classList.contains("selected"));
    const next = photos[Math.min(Math.max(now + by, 0), photos.length - 1)];
    if (next === photos[now]) return true;
    next.click();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
    return true;
  }

  function onViewer(act) {
    if (!shown(document.querySelector("#mtl-viewer .stage"))) return false;
    act(window.mtl.viewer);
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(BUSY)) return;
    const toggle = () => onViewer((viewer) => viewer.toggle());
    const zoom = (factor) => () => onViewer((viewer) => viewer.zoomBy(factor));
    const actions = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), o: toggle, O: toggle,
      "+": zoom(1.5), "=": zoom(1.5), "-": zoom(1 / 1.5),
    };
    if (actions[event.key]?.()) event.preventDefault();
  });

  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    const input = document.querySelector("#mtl-upload input[type=file]");
    if (!files.length || !shown(document.querySelector("#mtl-upload"))) return;
    const carrier = new DataTransfer();
    files.forEach((file) => carrier.items.add(file));
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  });
})();
