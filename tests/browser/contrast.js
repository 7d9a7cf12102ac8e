// Returns the visible texts whose contrast to what lies below them is under 4.5.
const channels = (color) => {
  const inside = color.match(/[\d.]+/g).map(Number);
  return color.startsWith("color(srgb") ? inside.map((value, i) => (i < 3 ? value * 255 : value)) : inside;
};
const linear = (value) => {
  const share = value / 255;
  return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
};
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));

function paper(element) {
  const layers = [];
  const cell = element.closest(".cell")?.querySelector("rect");
  if (cell) {
    const style = getComputedStyle(cell);
    layers.push([...channels(style.fill).slice(0, 3), Number(style.fillOpacity)]);
  }
  for (let at = element; at; at = at.parentElement) {
    const color = channels(getComputedStyle(at).backgroundColor);
    layers.push(color);
    if ((color[3] ?? 1) === 1) break;
  }
  return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
}

const low = new Set();
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement;
  const text = walk.currentNode.data.trim();
  if (!text || !element.checkVisibility() || element.closest("script, style, option, title")) continue;
  const style = getComputedStyle(element);
  const ink = element instanceof SVGElement ? style.fill : style.color;
  if (!ink.startsWith("rgb")) continue;
  const below = paper(element);
  const [one, two] = [light(over(channels(ink), below)), light(below)].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (two + 0.05);
  if (ratio < 4.5) low.add(`${ratio.toFixed(2)} ${element.tagName}: ${text.slice(0, 40)}`);
}
return [...low];
