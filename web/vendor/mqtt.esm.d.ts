// The part of MQTT.js that carrier-mqtt.js uses. See README.md beside this file.

export interface PublishProperties {
  messageExpiryInterval?: number;
}

export interface PublishOptions {
  qos?: 0 | 1;
  properties?: PublishProperties;
}

export interface Packet {
  retain?: boolean;
}

export interface MqttClient {
  readonly connected: boolean;
  on(event: 'connect' | 'close', listener: () => void): this;
  on(event: 'error', listener: (error: Error & { code?: number }) => void): this;
  on(event: 'message', listener: (topic: string, payload: Uint8Array, packet: Packet) => void): this;
  subscribe(topics: string[], options: { qos: 0 | 1 }, done: (error: Error | null) => void): this;
  publish(topic: string, message: string, options: PublishOptions, done?: (error?: Error | null) => void): this;
  end(force: boolean): this;
}

export interface ClientOptions {
  clientId: string;
  protocolVersion: 4 | 5;
  clean: boolean;
  keepalive: number;
  reconnectPeriod: number;
  connectTimeout: number;
  queueQoSZero: boolean;
  timerVariant: 'native';
}

declare const mqtt: { connect(url: string, options: ClientOptions): MqttClient };
export default mqtt;
