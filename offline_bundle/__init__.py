"""What crosses the gap: signatures over models, approvals, policies and releases, and their verifiers.

Promise: a value from here means that a signature over those very bytes was checked.  Never: an unsigned mode, network
access, a weaker second format.  Values: `ModelManifest`, `Approval`, `PolicyManifest`, `TrustRoot`.  Entry points:
`model_signature.verify_signature`, `approval.verify_approvals`, `policy_signature.verify_policy`,
`trust_root.open_root_chain`.
"""
