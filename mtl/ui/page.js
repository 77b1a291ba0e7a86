// The page's words: English is the key. What stands in the page as data-t or data-label is translated when it appears.
(() => {
  const { words } = window.mtl;
  const codes = (navigator.languages || []).map((language) => language.split("-")[0].toLowerCase());
  const language = codes.find((code) => code in words) || "en";
  // gradio takes its own words, and the page's lang, from here: else they would be in a third language for some.
  Object.defineProperty(navigator, "language", { get: () => language });
  window.mtl.t = (text) => words[language][text] || text;

  // What gradio's own controls say in English only.
  const CONTROLS = ["Click to upload or drop files", "Click to Access Webcam", "grant webcam access", "Reset to default value",
    "Table actions", "Enter text to filter the table", "Copy table data", "Fullscreen", "Warning", "Error", "Close"];
  const dress = (control) => {
    const said = [...control.attributes, ...[...control.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE)];
    for (const part of said) {
      const text = part.nodeValue.trim();
      if (CONTROLS.includes(text)) part.nodeValue = window.mtl.t(text);
    }
    // A title alone is no label to a screen reader; the filter of a table has nothing else.
    if (control.matches("input[title]:not([aria-label])")) control.setAttribute("aria-label", control.title);
  };

  const each = (root, selector) => [...(root.matches?.(selector) ? [root] : []), ...(root.querySelectorAll?.(selector) || [])];
  const translate = (root) => {
    for (const part of each(root, "[data-t]")) {
      const text = window.mtl.t(part.dataset.t);
      if (part.textContent !== text) part.textContent = text;
    }
    for (const part of each(root, "[data-label]")) {
      const text = window.mtl.t(part.dataset.label);
      part.setAttribute("aria-label", text);
      if (part.tagName === "BUTTON") part.title = text;
    }
    // What a plot has under the pointer says nothing to a screen reader; its axes and lines do.
    each(root, "g[role=graphics-symbol]:not([aria-label])").forEach((mark) => mark.setAttribute("aria-hidden", "true"));
    each(root, "[aria-label], [title], button .wrap, .toast-title").forEach(dress);
  };
  new MutationObserver((changes) => {
    changes.forEach((change) => change.addedNodes.forEach(translate));
    const title = window.mtl.t(document.title);
    if (document.title !== title) document.title = title; // gradio writes it late
  }).observe(document.documentElement, { childList: true, subtree: true });
  document.addEventListener("DOMContentLoaded", () => translate(document));
})();
