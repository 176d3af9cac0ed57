"""Messages of the Open Inference Protocol's gRPC service, built without generated code.

Names and numbers of fields are the protocol's; messages that are not here are not served.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from .tensors import Scalar

SERVICE = "inference.GRPCInferenceService"

MESSAGES = """
ServerLiveRequest
ServerLiveResponse: bool live 1
ServerReadyRequest
ServerReadyResponse: bool ready 1
ModelReadyRequest: string name 1, string version 2
ModelReadyResponse: bool ready 1
ServerMetadataRequest
ServerMetadataResponse: string name 1, string version 2, string* extensions 3
ModelMetadataRequest: string name 1, string version 2
TensorMetadata: string name 1, string datatype 2, int64* shape 3
ModelMetadataResponse: string name 1, string* versions 2, string platform 3, \
TensorMetadata* inputs 4, TensorMetadata* outputs 5
InferParameter: bool bool_param 1, int64 int64_param 2, string string_param 3, \
double double_param 4, uint64 uint64_param 5
InferTensorContents: bool* bool_contents 1, int32* int_contents 2, int64* int64_contents 3, \
uint32* uint_contents 4, uint64* uint64_contents 5, float* fp32_contents 6, \
double* fp64_contents 7, bytes* bytes_contents 8
Parameter: string key 1, InferParameter value 2
InferInputTensor: string name 1, string datatype 2, int64* shape 3, Parameter* parameters 4, \
InferTensorContents contents 5
InferRequestedOutputTensor: string name 1, Parameter* parameters 2
ModelInferRequest: string model_name 1, string model_version 2, string id 3, \
Parameter* parameters 4, InferInputTensor* inputs 5, InferRequestedOutputTensor* outputs 6, \
bytes* raw_input_contents 7
InferOutputTensor: string name 1, string datatype 2, int64* shape 3, Parameter* parameters 4, \
InferTensorContents contents 5
ModelInferResponse: string model_name 1, string model_version 2, string id 3, \
Parameter* parameters 4, InferOutputTensor* outputs 5, bytes* raw_output_contents 6
ModelStreamInferResponse: string error_message 1, ModelInferResponse infer_response 2
ModelConfigRequest: string name 1, string version 2
ModelInput: string name 1, int32 data_type 2, int64* dims 4
ModelOutput: string name 1, int32 data_type 2, int64* dims 3
ModelParameter: string string_value 1
ConfigParameter: string key 1, ModelParameter value 2
ModelConfig: string name 1, string platform 2, int32 max_batch_size 4, ModelInput* input 5, \
ModelOutput* output 6, ConfigParameter* parameters 14, string backend 17
ModelConfigResponse: ModelConfig config 1
ModelStatisticsRequest: string name 1, string version 2
StatisticDuration: uint64 count 1, uint64 ns 2
InferStatistics: StatisticDuration success 1, StatisticDuration fail 2, \
StatisticDuration queue 3, StatisticDuration compute_infer 5
ModelStatistics: string name 1, string version 2, uint64 last_inference 3, \
uint64 inference_count 4, uint64 execution_count 5, InferStatistics inference_stats 6
ModelStatisticsResponse: ModelStatistics* model_stats 1
RepositoryIndexRequest: string repository_name 1, bool ready 2
ModelIndex: string name 1, string version 2, string state 3, string reason 4
RepositoryIndexResponse: ModelIndex* models 1
"""
"""A message a line, ``*``: repeated. A map is a list of keys and values, as it is on the wire, and
an enum is an int32."""

ONE_OF = "InferParameter"
"""The message that holds one of its fields."""

DATA_TYPES = {"TYPE_BOOL": 1, "TYPE_FP32": 11, "TYPE_FP64": 12, "TYPE_STRING": 13}
"""Numbers of Triton's enum."""


def _classes() -> dict[str, Any]:
    """Name -> class, in a pool of their own: a client's messages have the same names."""
    file = descriptor_pb2.FileDescriptorProto(
        name="dtwin_fast/inference.proto", package="inference", syntax="proto3"
    )
    field_type = descriptor_pb2.FieldDescriptorProto
    types = dict(field_type.Type.items())
    lines = [line.partition(":") for line in MESSAGES.strip().splitlines()]
    for name, _, fields in lines:
        message = file.message_type.add(name=name)
        for text in filter(None, fields.split(",")):
            kind, field, number = text.split()
            added = message.field.add(name=field, number=int(number))
            repeated = kind.endswith("*")
            added.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            if (scalar := f"TYPE_{kind.rstrip('*').upper()}") in types:
                added.type = types[scalar]
            else:
                added.type = field_type.TYPE_MESSAGE
                added.type_name = f".inference.{kind.rstrip('*')}"
            if name == ONE_OF:
                added.oneof_index = 0
        if name == ONE_OF:
            message.oneof_decl.add(name="parameter_choice")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
        for name, _, _ in lines
    }


CLASSES: dict[str, Any] = _classes()


def scalars(parameters: Any) -> dict[str, Scalar]:
    """The parameters of a message; one without a value is an empty text."""
    found: dict[str, Scalar] = {}
    for parameter in parameters:
        which = parameter.value.WhichOneof("parameter_choice")
        found[parameter.key] = getattr(parameter.value, which) if which else ""
    return found


def as_parameters(values: dict[str, Scalar]) -> list[Any]:
    """The way back, of texts."""
    value, parameter = CLASSES["InferParameter"], CLASSES["Parameter"]
    return [parameter(key=k, value=value(string_param=str(v))) for k, v in values.items()]
