// The time ranges of charts over the collector's store: seconds, and what they are called.

export const RANGES: [number, string][] = [
  [300, 'Last 5 minutes'],
  [900, 'Last 15 minutes'],
  [3600, 'Last hour'],
  [21600, 'Last 6 hours'],
  [86400, 'Last 24 hours'],
]
