// kubeadm; apart from the others because it registers the same global flags as they do.
package main

import (
	"k8s.io/kubernetes/cmd/kubeadm/app"
	errors "k8s.io/kubernetes/cmd/kubeadm/app/util/errors"
)

func main() {
	errors.HandleError(app.Run())
}
