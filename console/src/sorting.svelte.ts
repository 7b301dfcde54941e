// In which order a table's rows are.

export interface Column<Row> {
  title: string
  /** What the column is filtered by, and sorted unless it has a rank. */
  of: (row: Row) => string | number
  rank?: (row: Row) => number
}

export class Sorting<Row> {
  /** The column; -1: as the rows come. */
  by = $state(-1)
  down = $state(false)

  constructor(private columns: () => Column<Row>[], by = -1) {
    this.by = by
  }

  /** By another column, or the other way round; numbers begin with the greatest where `greatest`. */
  choose(i: number, greatest = false) {
    this.down = this.by === i ? !this.down : greatest
    this.by = i
  }

  sorted(rows: Row[]): Row[] {
    const column = this.columns()[this.by]
    const of = column?.rank ?? column?.of
    if (!of) return rows
    return [...rows].sort((a, b) => {
      const [x, y] = [of(a), of(b)]
      return (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y))) * (this.down ? -1 : 1)
    })
  }
}
