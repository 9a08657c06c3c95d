{{- /* The pods of a service: a Deployment, or a StatefulSet if .Values.persistence.enabled. */ -}}
{{- define "common.workload" -}}
{{- $isStateful := and .Values.persistence .Values.persistence.enabled -}}
apiVersion: apps/v1
kind: {{ ternary "StatefulSet" "Deployment" (default false $isStateful) }}
metadata:
  name: {{ include "common.fullname" . }}
  labels: {{- include "common.labels" . | nindent 4 }}
spec:
  {{- if not .Values.autoscaling.enabled }}
  replicas: {{ .Values.replicas }}
  {{- end }}
  {{- if $isStateful }}
  serviceName: {{ include "common.fullname" . }}
  podManagementPolicy: Parallel
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {{- toYaml .Values.rollingUpdate | nindent 6 }}
  {{- end }}
  selector:
    matchLabels: {{- include "common.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "common.labels" . | nindent 8 }}
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        # A changed configuration restarts the pods.
        checksum/config: {{ toYaml .Values.config | sha256sum }}
        {{- with .Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "common.fullname" . }}
      automountServiceAccountToken: false
      {{- with .Values.global.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
      {{- with .Values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "common.selectorLabels" $ | nindent 14 }}
        {{- end }}
      containers:
        - name: {{ .Chart.Name }}
          image: {{ include "common.image" . | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args: ["--config", "/etc/mrtc/config.yaml"]
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          env:
            - name: MRTC_POD_NAME
              valueFrom: {fieldRef: {fieldPath: metadata.name}}
            - name: MRTC_POD_IP
              valueFrom: {fieldRef: {fieldPath: status.podIP}}
            - name: MRTC_HOST_IP
              valueFrom: {fieldRef: {fieldPath: status.hostIP}}
            # Kubernetes 1.35 and later label pods so (PodTopologyLabels); before, `podLabels` or `config:` can say it.
            {{- range $setting := list "region" "zone" }}
            {{- if not (hasKey $.Values.config $setting) }}
            - name: MRTC_{{ upper $setting }}
              valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/{{ $setting }}']"}}
            {{- end }}
            {{- end }}
            {{- range $env, $key := .Values.secretEnv }}
            - name: {{ $env }}
              valueFrom:
                secretKeyRef:
                  name: {{ include "common.secretName" $ }}
                  key: {{ $key }}
            {{- end }}
            {{- range $env, $key := .Values.optionalSecretEnv }}
            - name: {{ $env }}
              valueFrom:
                secretKeyRef:
                  name: {{ include "common.secretName" $ }}
                  key: {{ $key }}
                  optional: true
            {{- end }}
            {{- with .Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports: {{- toYaml .Values.containerPorts | nindent 12 }}
          # Liveness is the process's own loop, never a dependency: an outage of NATS restarts nothing.
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 3
            failureThreshold: 2
          {{- with .Values.lifecycle }}
          lifecycle: {{- toYaml . | nindent 12 }}
          {{- end }}
          resources: {{- toYaml .Values.resources | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/mrtc, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- if .Values.data }}
            - {name: data, mountPath: /var/lib/mrtc}
            {{- end }}
            {{- with .Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ include "common.fullname" . }}
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
        {{- if and .Values.data (not $isStateful) }}
        - name: data
          {{- if .Values.data.existingClaim }}
          persistentVolumeClaim:
            claimName: {{ .Values.data.existingClaim }}
          {{- else }}
          emptyDir:
            sizeLimit: {{ .Values.data.sizeLimit }}
          {{- end }}
        {{- end }}
        {{- with .Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  {{- if $isStateful }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .Values.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .Values.persistence.size }}
  {{- end }}
{{- end -}}
