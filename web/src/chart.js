// The charts of a workspace's page.
import uPlot from "uplot";

window.uPlot = uPlot;
