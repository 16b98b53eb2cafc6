"""The wire: our own declarations of the Open Inference Protocol, and the code generated from them (`make protos`).

Never import `tritonclient` in a process that imports this package: both declare the same messages, and protobuf
refuses the second declaration.
"""
