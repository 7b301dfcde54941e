// Where the keyboard is.

import type { Attachment } from 'svelte/attachments'

/** What is open, the latest last. */
const open: HTMLElement[] = []

/** What opens beside a page: it takes the focus from what opened it, which gets it back at the end. Escape closes it where the
 * focus is in it, and the latest where nothing has the focus, as after a click on the graph. */
export function aside(close: () => void): Attachment<HTMLElement> {
  return (node) => {
    const opener = document.activeElement
    const escape = (event: KeyboardEvent) => {
      if (event.key !== 'Escape' || event.defaultPrevented) return
      const inside = event.target instanceof Node && node.contains(event.target)
      if (!inside && (event.target !== document.body || open.at(-1) !== node)) return
      event.preventDefault()
      close()
    }
    open.push(node)
    document.addEventListener('keydown', escape)
    // With the pointer nothing has the focus, and nothing needs it.
    if (opener !== document.body) node.querySelector<HTMLElement>('[data-first]')?.focus()
    return () => {
      open.splice(open.indexOf(node), 1)
      document.removeEventListener('keydown', escape)
      const lost = document.activeElement === document.body || node.contains(document.activeElement)
      if (!lost || !(opener instanceof HTMLElement)) return
      if (opener.isConnected) opener.focus()
      else document.querySelector('main')?.focus()
    }
  }
}
