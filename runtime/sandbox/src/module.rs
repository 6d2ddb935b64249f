//! The one core module of a component, given to be rewritten.
//!
//! *In*: a component, and what is to become of its core module. *Out*: the component with that
//! module in the place of its own; `None` where it has more than one, or has any in a component
//! inside of it. *Trusts*: that the component is valid.

use wasm_encoder::{Component, ComponentSectionId, RawSection};
use wasmparser::{BinaryReaderError, Parser, Payload};

/// Rewrites the component's one module by `rewrite`.
pub(crate) fn rewritten<E: From<BinaryReaderError>>(
    component: &[u8],
    rewrite: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut out = Component::new();
    let mut rewrite = Some(rewrite);
    let (mut depth, mut only) = (0_usize, true);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        match &payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                match (depth, rewrite.take()) {
                    (0, Some(rewrite)) => {
                        let bytes = component.get(unchecked_range.clone()).unwrap_or_default();
                        let data = &rewrite(bytes)?;
                        out.section(&RawSection { id: ComponentSectionId::CoreModule as u8, data });
                    }
                    _ => only = false,
                }
                depth = depth.saturating_add(1);
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                if depth == 0 {
                    let data = component.get(unchecked_range.clone()).unwrap_or_default();
                    out.section(&RawSection { id: ComponentSectionId::Component as u8, data });
                }
                depth = depth.saturating_add(1);
            }
            // The payloads of what lies inside follow, up to their end.
            Payload::End(_) => depth = depth.saturating_sub(1),
            other => {
                if let Some((id, range)) = other.as_section().filter(|_| depth == 0) {
                    out.section(&RawSection { id, data: component.get(range).unwrap_or_default() });
                }
            }
        }
    }
    Ok(only.then(|| out.finish()))
}
