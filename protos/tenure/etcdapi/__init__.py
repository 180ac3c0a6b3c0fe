"""The messages of etcd's public v3 API that Tenure uses; generated from etcd.proto."""
