// Tables that are updated in place, so that neither the focus nor the scroll position is lost. All texts are inserted as
// text, never as HTML.

/**
 * A panel: a heading and a table.
 *
 * `columns` have a `title`, `text(row)`, and perhaps a `kind` (a class of the cell), `tone(row)`, `share(row)` (a bar from 0
 * to 1) or `act`: `{ label(row), run(row, button) }`, a button, which is hidden if its label is null.
 */
export class Table {
  #rows = new Map();

  constructor({ id, title, columns, key, empty, broad = false }) {
    this.columns = columns;
    this.key = key;
    this.section = element("section", broad ? "broad" : "");
    this.section.setAttribute("aria-labelledby", `${id}-title`);
    this.heading = element("div", "heading");
    const heading = element("h2");
    heading.id = `${id}-title`;
    heading.textContent = title;
    this.heading.append(heading);
    this.scroll = element("div", "scroll");
    this.scroll.tabIndex = 0; // it may scroll on a small screen
    this.scroll.setAttribute("role", "group");
    this.scroll.setAttribute("aria-labelledby", heading.id);
    this.table = element("table");
    this.table.setAttribute("aria-labelledby", heading.id);
    const head = this.table.createTHead().insertRow();
    for (const { title: name, kind = "" } of columns) {
      const cell = element("th", kind);
      cell.scope = "col";
      const label = name || "Actions";
      if (name) cell.textContent = label;
      else cell.append(hiddenText(label));
      head.append(cell);
    }
    this.body = this.table.createTBody();
    this.none = element("p", "none");
    this.none.textContent = empty;
    this.scroll.append(this.table, this.none);
    this.section.append(this.heading, this.scroll);
    this.show([]);
  }

  /** Shows exactly these rows, in this order. */
  show(rows) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.table.hidden = rows.length === 0;
    this.none.hidden = rows.length > 0;
    const shown = rows.map((row) => {
      const key = String(this.key(row));
      let line = this.#rows.get(key);
      if (!line) this.#rows.set(key, (line = new Line(this.columns)));
      line.fill(row);
      return [key, line.element];
    });
    const keys = new Set(shown.map(([key]) => key));
    for (const [key, line] of this.#rows) {
      if (keys.has(key)) continue;
      line.element.remove();
      this.#rows.delete(key);
    }
    // A row that is in its place is not moved: moving it would take the focus from its button.
    shown.forEach(([, line], index) => {
      if (this.body.rows[index] !== line) this.body.insertBefore(line, this.body.rows[index] ?? null);
    });
    if (focused && (focused.hidden || !focused.isConnected)) this.scroll.focus();
  }
}

class Line {
  #cells;

  constructor(columns) {
    this.columns = columns;
    this.element = element("tr");
    this.#cells = columns.map((column) => this.#make(column));
  }

  fill(row) {
    this.row = row;
    this.columns.forEach((column, index) => {
      const { cell, text, bar, button } = this.#cells[index];
      if (button) {
        const label = column.act.label(row);
        button.hidden = label === null;
        if (label !== null) set(button, label);
        return;
      }
      set(text, column.text(row));
      const tone = column.tone?.(row) ?? "";
      if (tone) cell.dataset.tone = tone;
      else delete cell.dataset.tone;
      if (bar) {
        const share = column.share(row);
        bar.hidden = share === null;
        bar.value = share ?? 0;
      }
    });
  }

  #make({ title, kind = "", act, share }) {
    const cell = element("td", act ? "act" : kind);
    this.element.append(cell);
    if (act) {
      const button = element("button", "quiet");
      button.type = "button";
      button.addEventListener("click", () => act.run(this.row, button));
      cell.append(button);
      return { cell, button };
    }
    const text = element("span");
    cell.append(text);
    if (!share) return { cell, text };
    const bar = element("progress");
    bar.max = 1;
    bar.setAttribute("aria-label", title);
    cell.append(bar);
    return { cell, text, bar };
  }
}

export function element(name, className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  return made;
}

function hiddenText(text) {
  const made = element("span", "visually-hidden");
  made.textContent = text;
  return made;
}

function set(node, text) {
  const value = String(text ?? "");
  if (node.textContent !== value) node.textContent = value;
}
