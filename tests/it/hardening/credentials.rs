//! Attacks on where credentials come from and where they go: cookies, origins, hosts, URLs, logs.
