//! Encodes and decodes the messages of `design/0002-wire.md`. Pure.
//!
//! A body is a JSON envelope `{"version": 1, "type": …, …}`. Its type says what it carries:
//! tasks, results, or a control message, which is about an endpoint's instances, steers an
//! endpoint or tells about running work (`dispatch`). Unknown fields are ignored. One bad task in a message does not spoil the
//! others: each is decoded by itself, and one that cannot be read comes back with a reason
//! and, where it can be found, its id.

mod claims;
mod control;
mod dispatch;
mod each;
mod envelope;
mod events;
mod message_body;
mod naming;
mod post;
mod results;
mod steering;
mod tasks;

pub use claims::{CLAIMS_MAX, CLAIMS_TYPE, Claims, encode_claims};
pub use control::{
    FUNCTIONS_MAX, FunctionOffer, InstanceDetails, PING_TYPE, PRESENCE_TYPE, Presence,
    ROLL_CALL_MAX, ROLL_CALL_TYPE, Role, RollCall, WELCOME_TYPE, Welcome, encode_ping,
    encode_presence, encode_roll_call, encode_welcome, session_name,
};
pub use dispatch::{
    ToEndpoint, ToLeaseHolder, ToService, UnknownControl, decode_events, decode_steering,
    decode_to_endpoint, decode_to_lease_holder, decode_to_service,
};
pub use events::{
    AttemptEvent, EVENTS_TYPE, Events, Load, MessageWait, OutputEvent, Phase, StreamName,
    TaskProgress, encode_events,
};
pub use message_body::MessageBody;
pub use post::{
    ANSWER_TYPE, Ask, DEFAULT_WAIT, DELIVER_TYPE, Deliver, Judgement, MAX_ADDRESSEE, MAX_MESSAGE,
    PostToEndpoint, PostToService, REQUEST_TYPE, Reply, RequestAnswer, TargetVerdict, TaskMessage,
    TaskRequest, VERDICT_GRACE, VERDICT_TYPE, encode_answer, encode_deliver, encode_request,
    encode_verdict, is_addressee,
};
pub use results::{
    Disk, Results, decode_result, decode_results, encode_result, pack_results, pack_results_of,
};
pub use steering::{
    CANCEL_MAX, CANCEL_TYPE, Cancel, CancelMark, DRAIN_TYPE, Drain, FOLLOW_TYPE, Follow, MARK_TYPE,
    REPORT_TYPE, RESUME_TYPE, ReportRequest, Resume, Steering, URGENT_TYPE, UrgentCopies,
    encode_mark, pack_urgent,
};
pub use tasks::{Tasks, Unreadable, decode_tasks, encode_task, encode_tasks, pack_tasks};

/// The version of the envelope this build speaks.
pub const VERSION: u32 = 1;
/// The AMQP `type` of a message that carries tasks.
pub const TASKS_TYPE: &str = "clutch.tasks";
/// The AMQP `type` of a message that carries results.
pub const RESULTS_TYPE: &str = "clutch.results";
/// The AMQP `content_type` of every message.
pub const CONTENT_TYPE: &str = "application/json";
/// The largest body either side sends or takes, in bytes: `RabbitMQ` 4's
/// default limit on a message.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// The most bytes of one encoded result: a body with it alone is within
/// [`MAX_BODY`].
pub const MAX_RESULT: usize = MAX_BODY - 1024;

#[cfg(test)]
mod tests;
