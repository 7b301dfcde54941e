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

export interface Check {
  code: string
  level: 'Error' | 'Warning' | 'Info'
  object: string
  text: string
  line: number
  documentation: string
}

export interface Condition {
  type: string
  status: string
  reason: string
  message: string
}

export interface ConfigRow {
  kind: string
  namespace: string
  name: string
  created: string
  findings: number
  worst: string
}

export interface ConfigPage {
  kind: string
  namespace: string
  name: string
  created: string
  findings: number
  worst: string
  yaml: string
  checks: Check[]
  conditions: Condition[]
}

export interface WorkloadRow {
  namespace: string
  name: string
  kind: string
  app: string
  version: string
  pods: number
  ready: number
  meshed: number
  state: 'healthy' | 'degraded' | 'down' | 'idle'
  says: string
}

export interface ServiceRow {
  namespace: string
  name: string
  host: string
  origin: string
  ports: string[]
  workloads: number
  config: number
  worst: string
}

export interface WorkloadPage {
  namespace: string
  name: string
  kind: string
  app: string
  version: string
  pods: number
  ready: number
  meshed: number
  state: 'healthy' | 'degraded' | 'down' | 'idle'
  says: string
  labels: Record<string, string>
  account: string
  instances: Pod[]
  services: ServiceRow[]
  mtls: string
  ports: Record<string, string>
  decides: string
  config: ConfigRow[]
  findings: Check[]
}

export interface ServicePage {
  namespace: string
  name: string
  host: string
  origin: string
  ports: string[]
  workloads: number
  config: number
  worst: string
  behind: WorkloadRow[]
  addresses: Record<string, string>
  rules: ConfigRow[]
  findings: Check[]
}

export interface ApplicationRow {
  namespace: string
  name: string
  workloads: WorkloadRow[]
  state: 'healthy' | 'degraded' | 'down' | 'idle'
  says: string
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

export interface Applied {
  written: string[]
  failed: Record<string, string>
}

export interface BoardQuery {
  expr: string
  legend: string
}

export interface BoardPanel {
  title: string
  unit: 'rps' | 'share' | 'ms' | 'Bps' | 'bytes' | 's' | 'count' | 'cores'
  queries: BoardQuery[]
}

export interface BoardVariable {
  name: string
  title: string
  metric: string
  label: string
}

export interface Board {
  name: string
  title: string
  variables: BoardVariable[]
  panels: BoardPanel[]
}
