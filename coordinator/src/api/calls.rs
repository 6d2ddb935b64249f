//! The calls, one function each: [`people`] join and are told whom to trust, [`sites`] say what there is to compute on, [`components`]
//! are uploaded, [`jobs`] are submitted, followed and cancelled.

pub(super) mod components;
pub(super) mod jobs;
pub(super) mod people;
pub(super) mod sites;

use axum::Json;

use super::Refusal;

pub(super) use components::MAX_UPLOADS;
pub(super) use people::MAX_JOINS;

type Answer<T> = Result<Json<T>, Refusal>;
