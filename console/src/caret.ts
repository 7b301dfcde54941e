// Which field of an object the caret is in: read off the indentation, since a text that is being written is rarely whole.

import type { Field } from './shapes'

export interface Place {
  kind: string
  /** From the object's root: `spec`, `http[]`, `timeout`. */
  parts: string[]
}

interface Line {
  dashes: number[]
  column: number
  key: string
}

function read(line: string): Line | null {
  if (!line.trim() || line.trim().startsWith('#') || line.startsWith('---')) return null
  const dashes: number[] = []
  let column = line.length - line.trimStart().length
  while (line[column] === '-' && (line[column + 1] === ' ' || column + 1 === line.length)) {
    dashes.push(column)
    column += 1
    while (line[column] === ' ') column++
  }
  const key = /^["']?([\w./{}-]+)["']?\s*:(\s|$)/.exec(line.slice(column))?.[1] ?? ''
  return { dashes, column, key }
}

/** `row` and `column` count from 0. */
export function placeAt(text: string, row: number, column: number): Place {
  const all = text.split('\n')
  let first = row
  while (first > 0 && !all[first]!.startsWith('---')) first--
  let last = row + 1
  while (last < all.length && !all[last]!.startsWith('---')) last++
  const kind = all.slice(first, last).map((l) => /^kind:\s*["']?(\w+)/.exec(l)?.[1]).find(Boolean) ?? ''
  const parts: string[] = []
  let pending = ''
  let at = Infinity
  const leave = (line: Line) => {
    at = line.column
    for (const dash of [...line.dashes].reverse()) {
      pending = `[]${pending}`
      at = dash
    }
  }
  const here = read(all[row] ?? '')
  if (here) {
    if (here.key) parts.unshift(here.key)
    leave(here)
  } else at = column
  for (let i = row - 1; i >= first; i--) {
    const line = read(all[i]!)
    if (!line) continue
    if (line.key && (line.column < at || (pending && line.column === at))) {
      parts.unshift(line.key + pending)
      pending = ''
      leave(line)
    } else if (line.column === at && line.dashes.length && !pending) leave(line)
  }
  return { kind, parts }
}

/** The path in the schema of what is at a place; empty at the top of `spec`, null outside of it. */
export function pathOf(fields: Record<string, Field>, parts: string[]): string | null {
  if (parts[0] !== 'spec') return null
  let path = ''
  for (const part of parts.slice(1)) {
    const bare = path.replace(/(\[\]|\{\})+$/, '')
    const [name = '', list = ''] = [part.replace(/(\[\])+$/, ''), /(\[\])+$/.exec(part)?.[0] ?? '']
    if (fields[bare]?.type.startsWith('map of') && !path.endsWith('{}')) path += `{}${list}`
    else path = (path ? `${path}.${name}` : name) + list
  }
  return path
}

/** The fields directly below a path. */
export function below(fields: Record<string, Field>, path: string): [string, Field][] {
  const bare = path.replace(/(\[\]|\{\})+$/, '')
  const starts = bare ? [`${bare}.`, `${bare}[].`, `${bare}{}.`] : ['']
  return Object.entries(fields).flatMap(([at, field]): [string, Field][] => {
    const start = starts.find((s) => at.startsWith(s))
    const name = start === undefined ? '' : at.slice(start.length)
    return name && !/[.[{]/.test(name) ? [[name, field]] : []
  })
}
