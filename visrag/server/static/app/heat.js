/**
 * Token similarities on their places → heat on a canvas; the same mathematics as visrag/heatmap.py. A page's map comes
 * as {grid, boxes, scale, tokens: [{values, counts, word}], words}; its one scale serves the question and every word.
 */

const interpolate = (x, xs, ys) => {
  const i = x < xs[1] ? 0 : 1;
  return ys[i] + ((ys[i + 1] - ys[i]) * (x - xs[i])) / (xs[i + 1] - xs[i]);
};

const toSrgb = (linear) => {
  const value = Math.min(Math.max(linear, 0), 1);
  return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
};

/** The colour of heat 0 to 255, [r, g, b] each: white over yellow to orange, lightness falling evenly (OKLab). */
const COLOURS = Array.from({ length: 256 }, (_, step) => {
  const share = step / 255;
  const chroma = interpolate(share, [0, 0.35, 1], [0, 0.12, 0.19]);
  const hue = (interpolate(share, [0, 0.35, 1], [100, 95, 48]) * Math.PI) / 180;
  const [light, a, b] = [1 - 0.29 * share, chroma * Math.cos(hue), chroma * Math.sin(hue)];
  const long = (light + 0.3963378 * a + 0.2158038 * b) ** 3;
  const medium = (light - 0.1055613 * a - 0.0638542 * b) ** 3;
  const short = (light - 0.0894842 * a - 1.2914855 * b) ** 3;
  return [
    toSrgb(4.0767417 * long - 3.3077116 * medium + 0.2309699 * short),
    toSrgb(-1.268438 * long + 2.6097574 * medium - 0.3413194 * short),
    toSrgb(-0.0041961 * long - 0.7034186 * medium + 1.7076147 * short),
  ];
});
const colourOf = (heat) => COLOURS[Math.round(heat * 255)];

/** A similarity → heat, 0 to 1; 0 where there is none. */
function heatOf(value, { low, high, gamma }) {
  if (Number.isNaN(value)) return 0;
  return Math.min(Math.max((value - low) / (high - low), 0), 1) ** gamma;
}

/**
 * The map of the question (word −1), of one of its words (token −1), or of one token: at each place the greatest
 * similarity of its tokens.
 * @returns {{values: Float64Array, winners: Int32Array}} NaN and −1 for places without a vector
 */
function mapOf(heat, word, only) {
  const size = heat.grid ? heat.grid[0] * heat.grid[1] : heat.boxes.length;
  const values = new Float64Array(size).fill(NaN);
  const winners = new Int32Array(size).fill(-1);
  heat.tokens.forEach((token, index) => {
    if (!token.counts || (word >= 0 && token.word !== word)) return;
    if (only >= 0 && index !== only) return;
    token.values.forEach((value, place) => {
      if (value === null || value <= values[place]) return;
      values[place] = value;
      winners[place] = index;
    });
  });
  return { values, winners };
}

/** The tokens of a word that count, each with its index. */
const tokensOf = (heat, word) =>
  heat.tokens.map((token, index) => ({ ...token, index })).filter((token) => token.counts && token.word === word);

/** The word and the token that an address names, as far as the heat has them. */
function chosenOf(heat, { word, token }) {
  if (!heat || !heat.words[word]) return { word: -1, token: -1 };
  return { word, token: tokensOf(heat, word).some(({ index }) => index === token) ? token : -1 };
}

/** The corners of a place on a raster, in whole pixels, at least one each way. */
function cornersOf(heat, place, width, height) {
  const [x0, y0, x1, y1] = boxOf(heat, place);
  const left = Math.min(Math.round(x0 * width), width - 1);
  const top = Math.min(Math.round(y0 * height), height - 1);
  return [left, top, Math.max(Math.round(x1 * width), left + 1), Math.max(Math.round(y1 * height), top + 1)];
}

function boxOf(heat, place) {
  if (!heat.grid) return heat.boxes[place];
  const [rows, columns] = heat.grid;
  const [row, column] = [Math.floor(place / columns), place % columns];
  return [column / columns, row / rows, (column + 1) / columns, (row + 1) / rows];
}

/** Paints a map over the whole canvas; heat below `threshold` stays clear. `alpha(heat)`: how solid, 1 as a rule. */
function paint(canvas, heat, map, threshold, alpha = () => 1) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const smooth = heat.grid && !map.values.some(Number.isNaN);
  if (smooth) paintGrid(context, heat, map, threshold, alpha);
  else paintBoxes(context, heat, map, threshold, alpha);
}

/** The smallest values first, so that the largest shows where places overlap. */
function paintBoxes(context, heat, map, threshold, alpha) {
  const { width, height } = context.canvas;
  const order = [...map.values.keys()].filter((place) => !Number.isNaN(map.values[place]));
  order.sort((a, b) => map.values[a] - map.values[b]);
  for (const place of order) {
    const value = heatOf(map.values[place], heat.scale);
    if (value <= 0 || value < threshold) continue;
    const [left, top, right, bottom] = cornersOf(heat, place, width, height);
    const [red, green, blue] = colourOf(value);
    context.clearRect(left, top, right - left, bottom - top);
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${alpha(value)})`;
    context.fillRect(left, top, right - left, bottom - top);
  }
}

const SMOOTH_SIDE = 800; // pixels: a smooth field needs no more, the canvas stretches it

function paintGrid(context, heat, map, threshold, alpha) {
  const { width, height } = context.canvas;
  const shrink = Math.min(1, SMOOTH_SIDE / Math.max(width, height));
  const raster = new OffscreenCanvas(Math.max(1, Math.round(width * shrink)), Math.max(1, Math.round(height * shrink)));
  const brush = raster.getContext("2d");
  const pixels = brush.createImageData(raster.width, raster.height);
  const across = taps(heat.grid[1], raster.width);
  const down = taps(heat.grid[0], raster.height);
  const columns = heat.grid[1];
  const { values } = map;
  let offset = 0;
  for (const [row, below, toBelow] of down) {
    for (const [column, after, toAfter] of across) {
      const upper = values[row * columns + column] * (1 - toAfter) + values[row * columns + after] * toAfter;
      const lower = values[below * columns + column] * (1 - toAfter) + values[below * columns + after] * toAfter;
      const value = heatOf(upper * (1 - toBelow) + lower * toBelow, heat.scale);
      if (value > 0 && value >= threshold) {
        pixels.data.set(colourOf(value), offset);
        pixels.data[offset + 3] = Math.round(255 * alpha(value));
      }
      offset += 4;
    }
  }
  brush.putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(raster, 0, 0, width, height);
}

/** For each pixel the two cells it lies between, and how far it is towards the second. */
function taps(cells, size) {
  return Array.from({ length: size }, (_, pixel) => {
    const place = Math.min(Math.max(((pixel + 0.5) * cells) / size - 0.5, 0), cells - 1);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, cells - 1), place - first];
  });
}

/** The place that shows at a point of the page (fractions): the one of greatest value there; −1 where none lies. */
function placeAt(heat, map, x, y) {
  if (heat.grid) {
    const [rows, columns] = heat.grid;
    const place = Math.min(Math.floor(y * rows), rows - 1) * columns + Math.min(Math.floor(x * columns), columns - 1);
    return Number.isNaN(map.values[place]) ? -1 : place;
  }
  let best = -1;
  heat.boxes.forEach(([x0, y0, x1, y1], place) => {
    if (x < x0 || x > x1 || y < y0 || y > y1 || Number.isNaN(map.values[place])) return;
    if (best < 0 || map.values[place] > map.values[best]) best = place;
  });
  return best;
}

export { COLOURS, chosenOf, heatOf, mapOf, paint, placeAt, tokensOf };
