// Lets a library that writes style elements and attributes do so under a content policy that forbids them: what it
// writes goes into style sheets and declarations made by script, which are no inline styles.
export function adoptStyles() {
  const setAttribute = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style" && this.style) this.style.cssText = value;
    else setAttribute.call(this, name, value);
  };
  const make = document.createElement.bind(document);
  document.createElement = (name, ...rest) => {
    if (String(name).toLowerCase() !== "style") return make(name, ...rest);
    const made = make("template"); // stands in the page for it; an empty style element would offend the policy too
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    const set = (text) => sheet.replaceSync(text ?? "");
    const get = () => [...sheet.cssRules].map((rule) => rule.cssText).join("\n");
    for (const text of ["textContent", "innerHTML", "innerText"]) Object.defineProperty(made, text, { get, set });
    Object.defineProperty(made, "sheet", { get: () => sheet });
    made.remove = () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
      Element.prototype.remove.call(made);
    };
    return made;
  };
}
