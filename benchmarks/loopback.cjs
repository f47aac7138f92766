// Preloaded into fauxqs, which would listen on every interface: a benchmark's server is for this machine alone.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (options, ...rest) {
  const ours = options && typeof options === "object" && "port" in options ? { ...options, host: "127.0.0.1" } : options;
  return listen.call(this, ours, ...rest);
};
