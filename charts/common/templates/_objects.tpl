{{- /* What stands around the pods. */ -}}

{{- define "common.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
data:
  # Verbatim what `config:` of the values holds; deploy/config/<service>.yaml documents every key.
  config.yaml: |
    {{- tpl (toYaml .Values.config) . | nindent 4 }}
{{- end -}}

{{- define "common.serviceaccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end -}}

{{- define "common.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
  {{- with .Values.service.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .Values.service.type }}
  {{- if .Values.service.headless }}
  clusterIP: None
  {{- end }}
  selector: {{- include "common.selectorLabels" . | nindent 4 }}
  ports: {{- toYaml .Values.service.ports | nindent 4 }}
{{- end -}}

{{- define "common.hpa" -}}
{{- if .Values.autoscaling.enabled }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ ternary "StatefulSet" "Deployment" (default false (and .Values.persistence .Values.persistence.enabled)) }}
    name: {{ include "common.fullname" . }}
  minReplicas: {{ .Values.autoscaling.minReplicas }}
  maxReplicas: {{ .Values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ .Values.autoscaling.targetCpuPercent }}}
    {{- with .Values.autoscaling.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  behavior:
    scaleDown:
      # Calls come in waves; scaling down late is cheaper than moving people twice.
      stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownStabilizationSeconds }}
{{- end }}
{{- end -}}

{{- define "common.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "common.selectorLabels" . | nindent 6 }}
{{- end -}}

{{- define "common.networkpolicy" -}}
{{- if .Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "common.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    # The suite's own services reach every port; the metrics port is open to the cluster for scraping.
    - from:
        - podSelector:
            matchLabels:
              app.kubernetes.io/part-of: mrtc
              app.kubernetes.io/instance: {{ .Release.Name }}
    - ports:
        - {port: http, protocol: TCP}
    {{- with .Values.networkPolicy.publicPorts }}
    - ports: {{- toYaml . | nindent 8 }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "common.servicemonitor" -}}
{{- if .Values.serviceMonitor.enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels: {{- include "common.selectorLabels" . | nindent 6 }}
  endpoints:
    - port: http
      path: /metrics
      interval: {{ .Values.serviceMonitor.interval }}
{{- end }}
{{- end -}}

{{- /* Everything of a service chart, in one go. */ -}}
{{- define "common.all" -}}
{{- range list "configmap" "serviceaccount" "service" "workload" "pdb" "hpa" "networkpolicy" "servicemonitor" }}
---
{{ include (printf "common.%s" .) $ }}
{{- end }}
{{- end -}}
