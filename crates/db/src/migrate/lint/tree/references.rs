//! Names that a file uses without making them: tables, types, functions.

use squawk_syntax::ast::{self, AstNode};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::facts::{Name, Reader};

/// A name of something outside the statement.
#[derive(Debug, Clone)]
pub(in super::super) struct Reference {
    pub(in super::super) name: Name,
    /// Whether it stands for a table or view.
    pub(in super::super) relation: bool,
}

/// The names in a file and in the bodies of its functions.
pub(super) fn references(file: &ast::SourceFile) -> Vec<Reference> {
    let mut found = Vec::new();
    let reader = Reader { place: &|node| usize::from(node.text_range().start()) };
    for node in file.syntax().descendants() {
        found.extend(reader.reference(&node));
        let function = ast::CreateFunction::cast(node.clone());
        let procedure = ast::CreateProcedure::cast(node.clone());
        let plpgsql = (function.as_ref().and_then(ast::CreateFunction::plpgsql))
            .or_else(|| procedure.as_ref().and_then(ast::CreateProcedure::plpgsql))
            .or_else(|| ast::Do::cast(node).and_then(|block| block.plpgsql()));
        if let Some(body) = plpgsql {
            let place =
                |node: &SyntaxNode| usize::from(body.source_range(node.text_range()).start());
            let reader = Reader { place: &place };
            found.extend(body.syntax().descendants().filter_map(|node| reader.reference(&node)));
        }
        let sql = function.as_ref().and_then(ast::CreateFunction::sql_body);
        if let Some(body) =
            sql.or_else(|| procedure.as_ref().and_then(ast::CreateProcedure::sql_body))
        {
            let place =
                |node: &SyntaxNode| usize::from(body.source_range(node.text_range()).start());
            let reader = Reader { place: &place };
            found.extend(body.syntax().descendants().filter_map(|node| reader.reference(&node)));
        }
    }
    found
}

impl Reader<'_> {
    fn reference(&self, node: &SyntaxNode) -> Option<Reference> {
        let parent = node.parent().map(|parent| parent.kind());
        match node.kind() {
            // Only the whole of it: `a.b` holds `a`.
            SyntaxKind::PATH_REF
                if parent != Some(SyntaxKind::PATH_REF) && parent != Some(SyntaxKind::PATH) =>
            {
                // A setting's name has dots of its own; a column's stand behind its table's.
                if matches!(
                    parent,
                    Some(
                        SyntaxKind::CONFIG_PARAMETER_REF
                            | SyntaxKind::QUALIFIED_COLUMN_NAME_REF
                            | SyntaxKind::PERCENT_TYPE
                    )
                ) {
                    return None;
                }
                let name = self.path_ref(ast::PathRef::cast(node.clone()))?;
                let relation = matches!(
                    parent,
                    Some(
                        SyntaxKind::TABLE_NAME_REF
                            | SyntaxKind::RELATION_NAME_REF
                            | SyntaxKind::VIEW_REF
                    )
                );
                Some(Reference { name, relation })
            }
            SyntaxKind::PATH => {
                // What a statement makes is no relation that it uses, but may stand in a schema.
                let path = ast::Path::cast(node.clone())?;
                let schema = self.path_ref(path.qualifier())?;
                let at = schema.at;
                let schema = Some(schema.schema.unwrap_or(schema.name));
                Some(Reference {
                    name: Name { schema, name: path.segment()?.text(), at },
                    relation: false,
                })
            }
            SyntaxKind::CALL_EXPR => {
                let call = ast::CallExpr::cast(node.clone())?;
                let ast::Expr::FieldExpr(field) = call.expr()? else { return None };
                self.dotted(&field)
            }
            _ => None,
        }
    }

    /// `schema.function` where it is called.
    fn dotted(&self, field: &ast::FieldExpr) -> Option<Reference> {
        let name = field.field()?.text();
        let mut base = field.base()?;
        while let ast::Expr::FieldExpr(inner) = base {
            base = inner.base()?;
        }
        let ast::Expr::NameRef(schema) = base else { return None };
        let at = (self.place)(field.syntax());
        Some(Reference { name: Name { schema: Some(schema.text()), name, at }, relation: false })
    }
}
