// Lets a library that writes style elements do so under a content policy that forbids them: what it writes goes into
// style sheets made by script, which are no inline styles.
export function adoptStyles() {
  const make = document.createElement.bind(document);
  document.createElement = (name, ...rest) => {
    const made = make(name, ...rest);
    if (String(name).toLowerCase() !== "style") return made;
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    const set = (text) => sheet.replaceSync(text ?? "");
    const get = () => [...sheet.cssRules].map((rule) => rule.cssText).join("\n");
    for (const name of ["textContent", "innerHTML", "innerText"]) Object.defineProperty(made, name, { get, set });
    Object.defineProperty(made, "sheet", { get: () => sheet });
    made.remove = () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
      Element.prototype.remove.call(made);
    };
    return made;
  };
}
