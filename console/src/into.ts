// Names beside the edge of the graph's canvas.

/** A text at something that is seen is moved into a canvas of this `width`, instead of being cut off at its side. */
export const into = (x: number, text: number, width: number) =>
  x < 0 || x > width || text > width ? x : Math.max(text / 2, Math.min(width - text / 2, x))
