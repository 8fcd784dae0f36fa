// What every page needs: live parts by htmx.
import htmx from "htmx.org";

window.htmx = htmx;
