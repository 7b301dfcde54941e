// Written by tools/shapes.py from lateen.console.shapes; edit that file.

export interface Node {
  id: string
  kind: 'app' | 'service' | 'workload' | 'external' | 'unknown'
  name: string
  namespace: string
  app?: string
  version?: string
  workload?: string
  parent?: string
  rateIn: number
  rateOut: number
  errorRate: number
}

export interface Edge {
  id: string
  source: string
  target: string
  protocol: string
  requests: number
  rate: number
  errorRate: number
  codes: Record<string, number>
  flags: Record<string, number>
  bytesRate: number
  connections: number
  mtls: number | null
  p50: number | null
  p90: number | null
  p95: number | null
  p99: number | null
  now: number
  nowErrors: number
}

export interface Graph {
  at: number
  window: number
  proxies: number
  failures: Record<string, string>
  boxes: string[]
  nodes: Node[]
  edges: Edge[]
}

export interface History {
  step: number
  rates: number[]
}

export interface Finding {
  code: string
  level: 'Error' | 'Warning' | 'Info'
  object: string
  text: string
}

export interface Traffic {
  requests: number
  errors: number
}

export interface App {
  name: string
  state: 'healthy' | 'degraded' | 'down' | 'idle'
  says: string
}

export interface Namespace {
  name: string
  labels: Record<string, string>
  apps: number
  healthy: number
  unhealthy: App[]
  meshed: number
  pods: number
  config: number
  errors: number
  warnings: number
  findings: Finding[]
  mtls: string
  traffic: Traffic
  failure: string
}

export interface Pod {
  name: string
  namespace: string
  containers: string[]
  ready: boolean
}

export interface ControlPlane {
  state: 'healthy' | 'degraded' | 'down' | 'idle'
  says: string
  version: string
}

export interface Gateway {
  name: string
  namespace: string
  addresses: Record<string, string>
  examples: Record<string, string>
}

export interface Mesh {
  controlPlane: ControlPlane
  gateways: Gateway[]
  collector: string
}
