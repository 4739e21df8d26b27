{{- define "logfeed.fullname" -}}
{{- if contains "logfeed" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-logfeed" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "logfeed.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "logfeed.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "logfeed.fullname" .) -}}
{{- end -}}

{{/* Of a role: (dict "root" $ "role" "ingest"). What selects pods never changes. */}}
{{- define "logfeed.selector" -}}
app.kubernetes.io/name: logfeed
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "logfeed.labels" -}}
{{ include "logfeed.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* The settings of all roles, without secrets: logfeed.yaml. */}}
{{- define "logfeed.config" -}}
{{- $broker := dict "bootstrap" (required "broker.bootstrap: host:port of the Kafka brokers" .Values.broker.bootstrap)
  "replication_factor" .Values.broker.replicationFactor "security_protocol" .Values.broker.securityProtocol -}}
{{- if .Values.broker.saslUsername -}}
{{- $_ := set $broker "sasl_username" .Values.broker.saslUsername -}}
{{- $_ := set $broker "sasl_mechanism" .Values.broker.saslMechanism -}}
{{- end -}}
{{- $own := dict "profile" "full" "data_dir" "/data" "broker" $broker "log" (dict "json_lines" true) -}}
{{- if .Values.segments.enabled -}}
{{- $_ := set $own "tiers" (dict "directory" "/segments") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.config)) -}}
{{- end -}}

{{/* Environment of every container: where settings are, and secrets by reference. */}}
{{- define "logfeed.env" -}}
- name: LOGFEED_CONFIG
  value: /etc/logfeed/logfeed.yaml
- name: LOGFEED_DATABASE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secretName }}
      key: {{ .Values.database.secretKey }}
{{- with .Values.broker.saslPassword }}
{{- if .secretName }}
- name: LOGFEED_BROKER__SASL_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .secretKey }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "logfeed.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "logfeed.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end -}}

{{/* What every pod has: account, context, where it may run. */}}
{{- define "logfeed.podBasics" -}}
serviceAccountName: {{ include "logfeed.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "logfeed.podSecurityContext" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .spec }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The port of a role: of its API, or of its health and metrics. */}}
{{- define "logfeed.port" -}}
{{- if has . (list "ingest" "query") -}}8080{{- else -}}9090{{- end -}}
{{- end -}}

{{- define "logfeed.annotations" -}}
{{- $port := dict "prometheus.io/port" (include "logfeed.port" .role) -}}
{{- toYaml (mergeOverwrite $port (deepCopy .root.Values.podAnnotations) (deepCopy (.spec.podAnnotations | default dict))) -}}
{{- end -}}

{{/* A role's pod template: (dict "root" $ "role" "ingest" "spec" .Values.roles.ingest). */}}
{{- define "logfeed.podTemplate" -}}
{{- $port := include "logfeed.port" .role -}}
{{- $hasApi := has .role (list "ingest" "query") -}}
{{- $hasFiles := and .root.Values.segments.enabled (has .role (list "query" "tier")) -}}
metadata:
  labels:
    {{- include "logfeed.labels" . | nindent 4 }}
    {{- with .root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "logfeed.config" .root | sha256sum }}
    {{- include "logfeed.annotations" . | nindent 4 }}
spec:
  {{- include "logfeed.podBasics" . | nindent 2 }}
  # A role ends within 25 s of SIGTERM; one with an API is taken out of its Service first.
  terminationGracePeriodSeconds: {{ if $hasApi }}40{{ else }}30{{ end }}
  {{- if gt (int .spec.replicas) 1 }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "logfeed.selector" . | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ .role }}
      image: {{ include "logfeed.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .role }}]
      env:
        {{- include "logfeed.env" .root | nindent 8 }}
        {{- if $hasApi }}
        - name: LOGFEED_HTTP__HOST
          value: 0.0.0.0
        - name: LOGFEED_HTTP__PORT
          value: {{ $port | quote }}
        {{- else }}
        {{- $section := get (dict "write" "WRITER" "tier" "TIERS" "alert" "ALERTS" "mine" "PATTERNS" "route" "ROUTING") .role }}
        - name: LOGFEED_{{ $section }}__HEALTH_HOST
          value: 0.0.0.0
        - name: LOGFEED_{{ $section }}__HEALTH_PORT
          value: {{ $port | quote }}
        {{- end }}
        {{- with .spec.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .root.Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: http
          containerPort: {{ $port }}
      # It listens from its start, and waits for database and broker behind /readyz: only a process that hangs is ended.
      livenessProbe:
        httpGet: { path: /livez, port: http }
        initialDelaySeconds: 10
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: http }
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      {{- if $hasApi }}
      lifecycle:
        preStop:
          sleep: { seconds: 5 }
      {{- end }}
      resources:
        {{- toYaml .spec.resources | nindent 8 }}
      securityContext:
        {{- include "logfeed.securityContext" .root | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/logfeed, readOnly: true }
        - { name: tmp, mountPath: /tmp }
        - { name: data, mountPath: /data }
        {{- if $hasFiles }}
        - { name: segments, mountPath: /segments, readOnly: {{ eq .role "query" }} }
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "logfeed.fullname" .root }}
    - name: tmp
      emptyDir: { sizeLimit: 1Gi }
    - name: data
      emptyDir: { sizeLimit: {{ .root.Values.objectCache.size }} }
    {{- if $hasFiles }}
    - name: segments
      persistentVolumeClaim:
        claimName: {{ .root.Values.segments.existingClaim | default (printf "%s-segments" (include "logfeed.fullname" .root)) }}
    {{- end }}
{{- end -}}
