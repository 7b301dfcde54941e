// Points, and the way along several of them.

export interface Point {
  x: number
  y: number
}

/** A path with the length that each of its points is reached after. */
export class Path {
  readonly points: Point[]
  private readonly after: number[] = [0]

  constructor(points: Point[]) {
    this.points = points
    for (let i = 1; i < points.length; i++) {
      const [a, b] = [points[i - 1]!, points[i]!]
      this.after.push(this.after[i - 1]! + Math.hypot(b.x - a.x, b.y - a.y))
    }
  }

  get length(): number {
    return this.after.at(-1)!
  }

  /** The point after a share of the way. */
  at(share: number): Point {
    const wanted = this.length * share
    let i = 1
    while (i < this.points.length - 1 && this.after[i]! < wanted) i++
    const [a, b] = [this.points[i - 1]!, this.points[i]!]
    const span = this.after[i]! - this.after[i - 1]! || 1
    const part = Math.min(1, Math.max(0, (wanted - this.after[i - 1]!) / span))
    return { x: a.x + (b.x - a.x) * part, y: a.y + (b.y - a.y) * part }
  }
}
